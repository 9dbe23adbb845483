// What the sketch uses of ArduinoJson 7, to be compiled and not run.
#pragma once
#include <cstddef>
#include <string>

struct JsonVariant {
  JsonVariant operator[](const char* key) const;
  template <typename T>
  JsonVariant& operator=(const T& value);
  bool isNull() const;
  size_t size() const;
};
float operator|(const JsonVariant& value, float otherwise);
const char* operator|(const JsonVariant& value, const char* otherwise);

struct JsonDocument {
  JsonVariant operator[](const char* key) const;
};
struct DeserializationError {
  explicit operator bool() const;
};
DeserializationError deserializeJson(JsonDocument& document, const std::string& text);
size_t serializeJson(const JsonDocument& document, std::string& text);
