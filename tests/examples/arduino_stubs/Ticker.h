// A timer that rings when the program looks at the clock: the main loop of stub_main.cpp does.
#pragma once
#include "WiFi.h"

struct Ticker {
  void once_ms(uint32_t after, void (*callback)()) { ring = callback, at = millis() + after; }
  void detach() { ring = nullptr; }
  void look() {
    if (!ring || int32_t(millis() - at) < 0) return;
    void (*callback)() = ring;
    ring = nullptr;
    callback();
  }
  void (*ring)() = nullptr;
  uint32_t at = 0;
};
