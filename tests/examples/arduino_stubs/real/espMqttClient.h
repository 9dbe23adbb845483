// The real espMqttClient on Linux, with the constructor that it has on an ESP32.
#pragma once
#define espMqttClient RealMqttClient
#include_next <espMqttClient.h>
#include <espMqttClient.cpp>
#undef espMqttClient

struct espMqttClient : RealMqttClient {
  explicit espMqttClient(espMqttClientTypes::UseInternalTask) {}
};
