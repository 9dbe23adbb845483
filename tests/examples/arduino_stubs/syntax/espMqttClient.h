// What naila.h uses of espMqttClient 1.7, to be compiled and not run.
#pragma once
#include <cstdint>
#include <functional>

namespace espMqttClientTypes {
enum class UseInternalTask { NO, YES };
struct MessageProperties {
  uint8_t qos;
  bool dup, retain;
  uint16_t packetId;
};
typedef std::function<void(bool)> OnConnectCallback;
typedef std::function<void(const MessageProperties&, const char*, const uint8_t*, size_t, size_t, size_t)> OnMessageCallback;
}  // namespace espMqttClientTypes

struct espMqttClient {
  explicit espMqttClient(espMqttClientTypes::UseInternalTask);
  espMqttClient& setServer(const char* host, uint16_t port);
  espMqttClient& setClientId(const char* id);
  espMqttClient& setCredentials(const char* user, const char* password);
  espMqttClient& setKeepAlive(uint16_t seconds);
  espMqttClient& setWill(const char* topic, uint8_t qos, bool retain, const char* payload);
  espMqttClient& onConnect(espMqttClientTypes::OnConnectCallback callback, uint32_t id = 0);
  espMqttClient& onMessage(espMqttClientTypes::OnMessageCallback callback, uint32_t id = 0);
  uint16_t subscribe(const char* topic, uint8_t qos);
  uint16_t publish(const char* topic, uint8_t qos, bool retain, const char* payload);
  bool connect();
  bool connected() const;
  bool disconnected() const;
  void loop();
};
