"""A simulated arm with four joints and a gripper.

    python examples/arm.py --host localhost

Its contract is arm.json, its MQTT part simulated.py.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from actions import STEP_S, Work, pause
from command_line import options
from declared import Failed
from simulated import SimulatedDevice

JOINTS = ("base", "shoulder", "elbow", "wrist")
FULL_SPEED_DEG_S = 60.0

USUAL_FORCE_N = 8.0
PAYLOAD_G = 120.0


class SimulatedArm(SimulatedDevice):
    """The arm: each of its actions is a method, with the arguments that arm.json declares."""

    def __init__(self, options: Namespace) -> None:
        super().__init__(Path(__file__).with_name("arm.json"), options, {"speed": 50, "tool": "gripper"})
        self._angles = dict.fromkeys(JOINTS, 0.0)
        self._force = 0.0
        self._open = True
        self._temperature = 30.0

    def step(self, dt_s: float) -> None:
        """Let simulated time pass."""
        self._temperature += (30 - self._temperature) * dt_s / 120

    def measure(self) -> dict[str, Any]:
        """Return the telemetry of this moment."""
        return {
            "gripper_force": round(self._force, 1),
            "payload": PAYLOAD_G if self._force else 0.0,
            "motor_temperature": round(self._temperature, 1),
            "gripper_open": self._open,
        }

    def move_joint(self, joint: str, angle: float) -> Work:
        """Move one joint to an angle in degrees."""
        step = FULL_SPEED_DEG_S * self.parameters["speed"] / 100 * STEP_S
        try:
            while abs(left := angle - self._angles[joint]) > 1e-6:
                self._angles[joint] += max(-step, min(step, left))
                self._temperature += 0.002
                yield
        except Failed as failure:
            reached = round(self._angles[joint])
            raise Failed(f"{failure} at {reached} degrees", {"joint": joint, "angle": reached}) from None
        return {"joint": joint, "angle": angle}

    def open_gripper(self) -> Work:
        """Open the gripper."""
        self._force = 0.0
        yield from pause(0.5)
        self._open = True
        return {"open": True}

    def close_gripper(self, force: float = USUAL_FORCE_N) -> Work:
        """Close the gripper with a force in newtons."""
        if self.parameters["tool"] != "gripper":
            raise Failed(f"there is no gripper: a {self.parameters['tool']} is mounted")
        yield from pause(0.5)
        self._open, self._force = False, float(force)
        return {"force": force}

    def home(self) -> Work:
        """Move every joint to its rest position."""
        for joint in JOINTS:
            yield from self.move_joint(joint, 0.0)
        return {"at": "rest"}

    def wave(self, times: int = 2) -> Work:
        """Wave at somebody."""
        for _ in range(times):
            yield from self.move_joint("wrist", 20.0)
            yield from self.move_joint("wrist", -20.0)
        yield from self.move_joint("wrist", 0.0)
        return {"times": times}

    def calibrate(self) -> Work:
        """Move every joint to its ends to find zero again."""
        for joint in JOINTS:
            for angle in (-120.0, 120.0, 0.0):
                yield from self.move_joint(joint, angle)
        return {"calibrated": list(JOINTS)}

    def draw(self) -> list[str]:
        """Return what the terminal shows."""
        return [*(f"{joint:>18}: {round(angle)}°" for joint, angle in self._angles.items()), *super().draw()]


if __name__ == "__main__":
    SimulatedArm(options("A simulated arm.", "arm")).run()
