"""A rover in MicroPython on an ESP32: two motors on an H-bridge, a battery behind a divider, the BOOT button to stop.

Put it on the board, with its declaration and the part that it shares with every device:
    mpremote mip install umqtt.simple + cp main.py naila.py capabilities.json : + reset
What is typed on the serial console is said to the brain.
"""

import network
import time
from machine import ADC, PWM, Pin, Timer
from naila import Device

WIFI = ("my network", "its password")
BROKER, PORT, DEVICE_ID = "192.168.1.10", 1883, "rover32"
USER, PASSWORD = None, None
METRES_PER_S, DEGREES_PER_S, DUTY = 0.25, 120, 40000  # measure your own robot
PINS = (25, 26, 27, 14)  # left ahead, left back, right ahead, right back


class Rover:
    def __init__(self):
        self.motors = [PWM(Pin(pin), freq=1000, duty_u16=0) for pin in PINS]
        self.battery = ADC(Pin(34), atten=ADC.ATTN_11DB)
        self.timer = Timer(0)
        self.failure = None
        self.button = Pin(0, Pin.IN, Pin.PULL_UP)
        self.button.irq(self.halt, Pin.IRQ_FALLING)  # works without the brain, the network and the main loop

    def drive(self, distance, direction="forward"):
        way = 1 if direction == "forward" else -1
        self.move(way, way, distance / METRES_PER_S)

    def turn(self, angle, direction):
        way = 1 if direction == "left" else -1
        self.move(-way, way, angle / DEGREES_PER_S)

    def move(self, left, right, seconds):
        """Run the wheels for a time. A hardware timer ends it, whatever the program waits for."""
        self.failure = None
        self.timer.init(mode=Timer.ONE_SHOT, period=int(seconds * 1000), callback=self.brake)
        for motor, on in zip(self.motors, (left > 0, left < 0, right > 0, right < 0)):
            motor.duty_u16(DUTY if on else 0)

    def brake(self, _timer=None):
        for motor in self.motors:
            motor.duty_u16(0)

    def halt(self, _button=None):
        if self.is_moving():
            self.failure = "stopped on the way"
        self.timer.deinit()
        self.brake()

    def is_moving(self):
        return any(motor.duty_u16() for motor in self.motors)

    def measure(self):
        return {"battery": round(self.battery.read_uv() * 3 / 1e6, 2), "moving": self.is_moving()}


def join(wlan):
    wlan.active(True)
    if not wlan.isconnected():
        wlan.connect(*WIFI)
    while not wlan.isconnected():
        time.sleep_ms(200)


rover = Rover()
device = Device(rover, DEVICE_ID, BROKER, PORT, USER, PASSWORD)
while True:
    try:
        join(network.WLAN(network.STA_IF))
        device.live()
    except OSError as error:  # no network or no broker: stand still, and begin again
        rover.halt()
        print("not connected:", error)
        time.sleep_ms(2000)
