// A board that is not there, as naila_rover.ino uses it, on a computer: pins, serial, time, and a network.
#pragma once
#include <poll.h>
#include <unistd.h>

#include <chrono>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <ctime>

enum { OUTPUT, INPUT_PULLUP, LOW = 0, HIGH = 1 };

inline uint32_t millis() {
  using namespace std::chrono;
  return uint32_t(duration_cast<milliseconds>(steady_clock::now().time_since_epoch()).count());
}
inline void pinMode(uint8_t, int) {}
inline int digitalRead(uint8_t) { return HIGH; }
inline void analogWrite(uint8_t, int) {}
inline uint32_t analogReadMilliVolts(uint8_t) { return 2500; }
inline void configTime(long, int, const char*) {}

struct Console {
  void begin(int) {}
  int available() {
    pollfd descriptor = {0, POLLIN, 0};
    return poll(&descriptor, 1, 0) > 0 && (descriptor.revents & POLLIN);
  }
  int read() {
    char c = 0;
    return ::read(0, &c, 1) == 1 ? c : -1;
  }
  void printf(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
  }
};
inline Console Serial;

enum { WIFI_STA };
struct Network {
  void mode(int) {}
  void setAutoReconnect(bool) {}
  void begin(const char*, const char*) {}
  bool isConnected() { return true; }
};
inline Network WiFi;
