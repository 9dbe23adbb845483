/* The contract with the brain in Arduino C++: the same for every device. docs/devices.md explains every step.
   A robot gives four functions: begin an action (or say why not), halt, say whether it moves, and measure. */
#pragma once

#include <ArduinoJson.h>
#include <WiFi.h>
#include <espMqttClient.h>
#include <time.h>

#include <list>
#include <string>

const char* begin(const std::string& name, JsonVariant arguments);
void halt();
bool isMoving();
void measure(JsonDocument& telemetry);

const uint32_t REPEAT_MS = 10000, GIVE_UP_MS = 60000, TELEMETRY_MS = 1000, RECONNECT_MS = 2000;

struct Answered { std::string id, result; };  // result: empty while it is under way
struct Question { std::string id, payload; uint32_t saidAt, sentAt; bool sent; };

espMqttClient mqtt(espMqttClientTypes::UseInternalTask::NO);  // its callbacks come from loop(), as everything here
std::string topic, will, running, typed, body;  // id of the action under way; the line, the message that is coming
std::list<Answered> results;
std::list<Question> questions;
const char* failure = nullptr;  // why the action under way will not be done

void publish(const char* leaf, const std::string& payload, uint8_t qos = 1, bool retain = false) {
  mqtt.publish((topic + leaf).c_str(), qos, retain, payload.c_str());
}

void finish(const std::string& id, const char* error) {
  JsonDocument document;
  document["id"] = id;
  document["ok"] = error == nullptr;
  if (error) document["error"] = error;
  std::string result;
  serializeJson(document, result);
  if (id == running) running.clear();
  for (Answered& answered : results) if (answered.id == id) answered.result = result;
  publish("action/result", result);
}

const char* late(const char* expiresAt) {  // for example 2026-01-31T12:00:00.000Z
  struct tm at = {};
  if (time(nullptr) < 1700000000) return "my clock is not set";
  if (sscanf(expiresAt, "%d-%d-%dT%d:%d:%d", &at.tm_year, &at.tm_mon, &at.tm_mday, &at.tm_hour, &at.tm_min, &at.tm_sec) != 6)
    return "expires_at is not a time";
  at.tm_year -= 1900;
  at.tm_mon -= 1;
  return time(nullptr) > mktime(&at) ? "expired" : nullptr;
}

void act(JsonDocument& action) {
  const std::string id = action["id"] | "", name = action["name"] | "";
  for (const Answered& answered : results) {
    if (answered.id != id) continue;  // a message may come twice: answer again, but never move again
    if (!answered.result.empty()) publish("action/result", answered.result);
    return;
  }
  if (results.size() > 20) results.pop_front();
  results.push_back({id, ""});
  if (name == "stop") {  // is never late, and waits for nothing
    halt();
    if (!running.empty()) finish(std::string(running), failure);
    return finish(id, nullptr);
  }
  const char* wrong = late(action["expires_at"] | "");
  if (!wrong && !running.empty()) wrong = "busy: I am moving";
  if (!wrong) {
    failure = nullptr;
    wrong = begin(name, action["arguments"]);
  }
  if (wrong) return finish(id, wrong);
  running = id;
}

void onMessage(const espMqttClientTypes::MessageProperties&, const char* at, const uint8_t* payload, size_t length,
               size_t index, size_t total) {
  if (index == 0) body.clear();
  body.append(reinterpret_cast<const char*>(payload), length);  // what is long comes in pieces
  JsonDocument message;
  if (index + length < total || deserializeJson(message, body)) return;
  if (topic + "action" == at) return act(message);
  questions.remove_if([&](const Question& question) { return question.id == (message["id"] | ""); });
  Serial.printf("naila: %s\n", message["text"] | (message["message"] | ""));
}

void onConnect(bool) {
  for (const char* leaf : {"action", "reply", "error"}) mqtt.subscribe((topic + leaf).c_str(), 1);
  publish("capabilities", CAPABILITIES, 1, true);
  publish("status", "online", 1, true);
}

void speak(uint32_t now) {  // sent again until it is answered: by its id the brain knows that it is the same
  while (Serial.available()) {
    const char c = Serial.read();
    if (c != '\n') { if (c != '\r') typed += c; continue; }
    JsonDocument intent;
    const std::string id = std::to_string(uint32_t(time(nullptr))) + "-" + std::to_string(now);
    intent["id"] = id;
    intent["text"] = typed;
    questions.push_back({id, "", now, now, false});
    serializeJson(intent, questions.back().payload);
    typed.clear();
  }
  questions.remove_if([&](const Question& question) { return now - question.saidAt > GIVE_UP_MS; });
  for (Question& question : questions) {
    if ((question.sent && now - question.sentAt < REPEAT_MS) || !mqtt.connected()) continue;
    publish("intent", question.payload);
    question.sent = true;
    question.sentAt = now;
  }
}

void setupNaila(const char* broker, uint16_t port, const char* device, const char* user, const char* password) {
  configTime(0, 0, "pool.ntp.org");  // without the time nobody knows what is late
  topic = std::string("naila/devices/") + device + "/";
  will = topic + "status";
  mqtt.setServer(broker, port).setClientId(device).setCredentials(user, password).setKeepAlive(10);
  mqtt.setWill(will.c_str(), 1, true, "offline").onConnect(onConnect).onMessage(onMessage);
}

void loopNaila() {
  static uint32_t connectAt = 0, telemetryAt = 0;
  const uint32_t now = millis();
  mqtt.loop();
  if (!mqtt.connected() && isMoving()) halt();  // nobody could stop it any more
  if (mqtt.disconnected() && WiFi.isConnected() && int32_t(now - connectAt) >= 0) {
    connectAt = now + RECONNECT_MS;
    mqtt.connect();
  }
  if (!running.empty() && !isMoving()) finish(std::string(running), failure);
  if (mqtt.connected() && int32_t(now - telemetryAt) >= 0) {
    telemetryAt = now + TELEMETRY_MS;
    JsonDocument telemetry;
    std::string payload;
    measure(telemetry);
    serializeJson(telemetry, payload);
    publish("telemetry", payload, 0);
  }
  speak(now);
}
