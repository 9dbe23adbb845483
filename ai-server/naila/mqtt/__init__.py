"""The MQTT contract: topics, codec, client and embedded broker."""
