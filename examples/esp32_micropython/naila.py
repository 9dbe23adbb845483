"""The contract with the brain, for MicroPython: the same for every device. docs/devices.md explains every step.

A robot is an object with a method for each declared action, which begins it and returns at once, with `is_moving()`,
`failure` (why the last action was not done, or None), `halt()` and `measure()`. Needs umqtt.simple: mpremote mip install umqtt.simple
"""

import json
import ntptime
import select
import sys
import time
from umqtt.simple import MQTTClient

REPEAT_MS, GIVE_UP_MS, TELEMETRY_MS = 10000, 60000, 1000


class Device:
    def __init__(self, robot, device_id, broker, port=1883, user=None, password=None, root="naila"):
        self.robot = robot
        self.topic = root + "/devices/" + device_id + "/"
        with open("capabilities.json") as file:
            self.capabilities = json.load(file)
        self.declared = {action["name"]: action["parameters"] for action in self.capabilities["actions"]}
        self.inbox = []  # what came: (topic, payload)
        self.results = {}  # by action id; None while it is under way
        self.running = None  # id of the action that moves the robot
        self.questions = {}  # what was said and not answered: by id, [text, when it was said, when it is sent again]
        self.typed = ""
        self.console = select.poll()
        self.console.register(sys.stdin, select.POLLIN)
        self.client = MQTTClient(device_id, broker, port, user, password, keepalive=10)
        self.client.set_last_will(self.topic + "status", "offline", True, 1)
        # Only kept here: a callback that publishes would wait for ever inside another publish.
        self.client.set_callback(lambda topic, payload: self.inbox.append((topic, payload)))

    def connect(self):
        ntptime.settime()  # without the time nobody knows what is late
        self.client.connect()
        for leaf in ("action", "reply", "error"):
            self.client.subscribe(self.topic + leaf, 1)
        self.publish("capabilities", self.capabilities, retain=True)
        self.client.publish(self.topic + "status", "online", True, 1)

    def publish(self, leaf, document, retain=False, qos=1):
        self.client.publish(self.topic + leaf, json.dumps(document).encode(), retain, qos)

    def live(self):
        """Do all that a device does, until the connection is lost: OSError."""
        self.connect()
        telemetry_at = time.ticks_ms()
        while True:
            self.client.check_msg()
            while self.inbox:
                topic, payload = self.inbox.pop(0)
                try:
                    self.take(topic.decode()[len(self.topic) :], json.loads(payload))
                except (ValueError, KeyError, TypeError) as error:
                    print("not understood:", error)
            if self.running and not self.robot.is_moving():
                self.finish(self.running, self.robot.failure)
            now = time.ticks_ms()
            if time.ticks_diff(now, telemetry_at) >= 0:
                telemetry_at = time.ticks_add(now, TELEMETRY_MS)
                self.publish("telemetry", self.robot.measure(), qos=0)
            self.speak(now)
            time.sleep_ms(10)

    def take(self, leaf, message):
        if leaf == "action":
            self.act(message["id"], message["name"], message["arguments"], message["expires_at"])
        else:  # a reply or an error
            self.questions.pop(message.get("id"), None)
            print("naila:", message.get("text") or message.get("message"))

    def act(self, action_id, name, arguments, expires_at):
        if action_id in self.results:  # a message may come twice: answer again, but never move again
            if self.results[action_id]:
                self.publish("action/result", self.results[action_id])
            return
        while len(self.results) > 20:
            self.results.pop(next(known for known in self.results if known != self.running))
        if name == "stop":  # is never late, and waits for nothing
            self.robot.halt()
            if self.running:
                self.finish(self.running, self.robot.failure)
            return self.finish(action_id)
        error = is_late(expires_at) or self.wrong(name, arguments) or (self.running and "busy: I am moving")
        if error:
            return self.finish(action_id, error)
        self.results[action_id] = None
        self.running = action_id
        getattr(self.robot, name)(**arguments)

    def finish(self, action_id, error=None):
        if action_id == self.running:
            self.running = None
        result = {"id": action_id, "ok": False, "error": error} if error else {"id": action_id, "ok": True}
        self.results[action_id] = result
        self.publish("action/result", result)

    def wrong(self, name, arguments):
        """Check once more what the brain has checked: the robot has wheels, and people have feet."""
        if name not in self.declared:
            return "unknown action"
        for key in self.declared[name].get("required", []):
            if key not in arguments:
                return key + " is missing"
        for key, value in arguments.items():
            rule = self.declared[name]["properties"].get(key)
            if rule is None or ("enum" in rule and value not in rule["enum"]):
                return key + " is not as declared"
            if "minimum" in rule and not rule["minimum"] <= value <= rule["maximum"]:
                return key + " is out of range"

    def speak(self, now):
        """Send what was typed, again until it is answered: by its id the brain knows that it is the same."""
        while self.console.poll(0):
            self.typed += sys.stdin.read(1)
        *lines, self.typed = self.typed.split("\n")
        for text in lines:
            self.questions["%x-%x" % (int(time.time()), now)] = [text, now, now]
        for key, question in list(self.questions.items()):
            if time.ticks_diff(now, question[1]) > GIVE_UP_MS:
                del self.questions[key]  # an old wish is not a wish
            elif time.ticks_diff(now, question[2]) >= 0:
                question[2] = time.ticks_add(now, REPEAT_MS)
                self.publish("intent", {"id": key, "text": question[0]})


def is_late(at):
    """Return why what was to begin before a time such as 2026-01-31T12:00:00.000Z must not begin, or None."""
    if time.gmtime()[0] < 2024:
        return "my clock is not set"
    parts = [int(at[i:j]) for i, j in ((0, 4), (5, 7), (8, 10), (11, 13), (14, 16), (17, 19))]
    return "expired" if time.time() > time.mktime(tuple(parts + [0, 0, 0])) else None
