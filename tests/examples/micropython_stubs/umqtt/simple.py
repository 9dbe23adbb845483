"""umqtt.simple's client as the example uses it, on sockets of Python: MQTT 3.1.1 by hand, QoS 1, no callbacks of its own.

Like the original, `publish` with QoS 1 waits for its PUBACK and calls the callback for what comes meanwhile.
"""

import select
import socket
import struct


class MQTTClient:
    def __init__(self, client_id, server, port, user, password, keepalive):
        self.client_id, self.address, self.keepalive = client_id, (server, port), keepalive
        self.pid = 0

    def set_last_will(self, topic, message, retain, qos):
        self.will = (topic, message, retain, qos)

    def set_callback(self, callback):
        self.callback = callback

    def connect(self):
        self.sock = socket.create_connection(self.address)
        topic, message, retain, qos = self.will
        flags = 0x02 | 0x04 | qos << 3 | retain << 5
        head = text("MQTT") + bytes([4, flags]) + struct.pack("!H", self.keepalive)
        self.send(0x10, head + text(self.client_id) + text(topic) + text(message))
        kind, body = self.receive()
        assert (kind, body[1]) == (0x20, 0)

    def publish(self, topic, message, retain=False, qos=0):
        self.pid += 1
        message = message.encode() if isinstance(message, str) else message
        pid = struct.pack("!H", self.pid) if qos else b""
        self.send(0x30 | qos << 1 | retain, text(topic) + pid + message)
        while qos and self.wait_msg() != (0x40, pid):
            pass

    def subscribe(self, topic, qos):
        self.pid += 1
        self.send(0x82, struct.pack("!H", self.pid) + text(topic) + bytes([qos]))
        while self.wait_msg()[0] != 0x90:
            pass

    def check_msg(self):
        if select.select([self.sock], [], [], 0)[0]:
            self.wait_msg()

    def wait_msg(self):
        kind, body = self.receive()
        if kind & 0xF0 == 0x30:
            end = 2 + struct.unpack("!H", body[:2])[0]
            topic, rest = body[2:end], body[end:]
            if kind & 0x06:
                self.send(0x40, rest[:2])
                rest = rest[2:]
            self.callback(topic, rest)
        return kind, body

    def send(self, kind, body):
        length, rest = b"", len(body)
        while True:
            length += bytes([rest & 0x7F | (0x80 if rest > 0x7F else 0)])
            rest >>= 7
            if not rest:
                break
        self.sock.sendall(bytes([kind]) + length + body)

    def receive(self):
        kind, length, shift = self.read(1)[0], 0, 0
        while True:
            byte = self.read(1)[0]
            length |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return kind, self.read(length)

    def read(self, count):
        data = b""
        while len(data) < count:
            if not (more := self.sock.recv(count - len(data))):
                raise OSError(-1)
            data += more
        return data


def text(words):
    return struct.pack("!H", len(words.encode())) + words.encode()
