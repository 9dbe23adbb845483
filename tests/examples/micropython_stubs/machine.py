"""The pins and timers of a board that is not there. Runs in MicroPython and in Python."""

import time

TIMERS = []


class Pin:
    IN, OUT, PULL_UP, IRQ_FALLING = 0, 1, 2, 4

    def __init__(self, number, mode=IN, pull=None):
        self.number = number

    def irq(self, handler, trigger):
        self.handler = handler


class PWM:
    def __init__(self, pin, freq, duty_u16):
        self._duty = duty_u16

    def duty_u16(self, value=None):
        for timer in TIMERS:
            timer.look()
        if value is None:
            return self._duty
        self._duty = value
        return None


class ADC:
    ATTN_11DB = 3

    def __init__(self, pin, atten):
        pass

    def read_uv(self):
        return 2500000


class Timer:
    """Rings when somebody looks at a motor."""

    ONE_SHOT = 0

    def __init__(self, number):
        self.ring = None
        TIMERS.append(self)

    def init(self, mode, period, callback):
        self.ring = (time.ticks_add(time.ticks_ms(), period), callback)

    def deinit(self):
        self.ring = None

    def look(self):
        if self.ring and time.ticks_diff(time.ticks_ms(), self.ring[0]) >= 0:
            callback, self.ring = self.ring[1], None
            callback(self)
