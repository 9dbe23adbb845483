"""The MQTT edge: topics, wire forms, the link to the broker and an embedded broker."""
