// What the rover declares: what it can do, within which limits, and how people say it.
#pragma once

const char* const CAPABILITIES = R"json({
  "name": "Rover",
  "description": "A small robot on two wheels.",
  "actions": [
    {
      "name": "drive",
      "description": "Drive straight for a distance.",
      "parameters": {
        "type": "object",
        "properties": {
          "distance": {"type": "number", "minimum": 0.05, "maximum": 2, "unit": "m", "description": "How far."},
          "direction": {"type": "string", "enum": ["forward", "backward"], "default": "forward"}
        },
        "required": ["distance"],
        "additionalProperties": false
      },
      "ttl_ms": 12000,
      "group": "wheels",
      "examples": ["drive forward one meter", "go back 20 cm"]
    },
    {
      "name": "turn",
      "description": "Turn on the spot.",
      "parameters": {
        "type": "object",
        "properties": {
          "angle": {"type": "number", "minimum": 1, "maximum": 360, "unit": "deg", "description": "How far around."},
          "direction": {"type": "string", "enum": ["left", "right"]}
        },
        "required": ["angle", "direction"],
        "additionalProperties": false
      },
      "ttl_ms": 8000,
      "group": "wheels",
      "examples": ["turn left 90 degrees", "turn around"]
    }
  ],
  "telemetry": {
    "battery": {"unit": "V", "description": "Voltage of the battery.", "minimum": 6.4},
    "moving": {"description": "Whether it moves now."}
  }
})json";
