/* A rover in Arduino C++ on an ESP32: two motors on an H-bridge, a battery behind a divider, the BOOT button to stop.
   Libraries: espMqttClient 1.7 and ArduinoJson 7. What is typed on the serial monitor (115200 baud, newline) is said
   to the brain. What it declares stands in capabilities.h, what it shares with every device in naila.h. */
#include <Ticker.h>

#include "capabilities.h"
#include "naila.h"

const char* WIFI_NAME = "my network";
const char* WIFI_PASSWORD = "its password";
const char* BROKER = "192.168.1.10";
const uint16_t PORT = 1883;
const char* DEVICE = "rover32";
const char* USER = nullptr;  // at the broker
const char* PASSWORD = nullptr;
const float METRES_PER_S = 0.25, DEGREES_PER_S = 120;  // measure your own robot
const uint8_t PINS[] = {25, 26, 27, 14}, BUTTON = 0, BATTERY = 34;  // left ahead, left back, right ahead, right back

Ticker brakeTimer;
volatile bool moving = false;

void brake() {
  for (uint8_t pin : PINS) analogWrite(pin, 0);
  moving = false;
}

void halt() {
  if (!moving) return;
  failure = "stopped on the way";
  brakeTimer.detach();
  brake();
}

bool isMoving() { return moving; }

void move(int left, int right, float seconds) {  // a timer ends it, whatever the program waits for
  moving = true;
  brakeTimer.once_ms(uint32_t(seconds * 1000), brake);
  const bool on[] = {left > 0, left < 0, right > 0, right < 0};
  for (int i = 0; i < 4; i++) analogWrite(PINS[i], on[i] ? 160 : 0);
}

const char* begin(const std::string& name, JsonVariant arguments) {
  const bool isDrive = name == "drive";
  const char* const amountName = isDrive ? "distance" : "angle";
  const float amount = arguments[amountName] | -1.0f, least = isDrive ? 0.05f : 1, most = isDrive ? 2 : 360;
  const std::string direction = arguments["direction"] | (isDrive ? "forward" : "");
  const bool isBack = direction == (isDrive ? "backward" : "left");
  // Checked once more than the brain has: the robot has wheels, and people have feet.
  if (!isDrive && name != "turn") return "unknown action";
  if (arguments[amountName].isNull()) return isDrive ? "distance is missing" : "angle is missing";
  if (!(amount >= least && amount <= most)) return isDrive ? "distance is out of range" : "angle is out of range";
  if (direction.empty()) return "direction is missing";
  if (!isBack && direction != (isDrive ? "forward" : "right")) return "direction is not as declared";
  if (arguments.size() > (arguments["direction"].isNull() ? 1u : 2u)) return "an argument is not as declared";
  const int way = isBack ? -1 : 1;
  move(way, isDrive ? way : -way, amount / (isDrive ? METRES_PER_S : DEGREES_PER_S));
  return nullptr;
}

void measure(JsonDocument& telemetry) {
  telemetry["battery"] = analogReadMilliVolts(BATTERY) * 3 / 1000.0;
  telemetry["moving"] = bool(moving);
}

void setup() {
  Serial.begin(115200);
  for (uint8_t pin : PINS) pinMode(pin, OUTPUT);
  pinMode(BUTTON, INPUT_PULLUP);
  brake();
  WiFi.mode(WIFI_STA);
  WiFi.setAutoReconnect(true);
  WiFi.begin(WIFI_NAME, WIFI_PASSWORD);
  setupNaila(BROKER, PORT, DEVICE, USER, PASSWORD);
}

void loop() {
  if (digitalRead(BUTTON) == LOW) halt();  // first, and without the brain
  loopNaila();
}
