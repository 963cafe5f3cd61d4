"""What the scenarios share: a client whose callbacks end in queues. A scenario prints what it saw, and the test judges.

Called as SCENARIO.py PORT VERSION, where VERSION is 3.1.1 or 5. Over WebSocket with WEBSOCKET_PATH in the environment.
"""

import os
import queue
import socket
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PORT = int(sys.argv[1])
WEBSOCKET_PATH = os.environ.get("WEBSOCKET_PATH")
V5 = {"3.1.1": False, "5": True}[sys.argv[2]]
DEADLINE_S = 15


def properties(packet, **values):
    """Properties of a packet in MQTT 5, and nothing in 3.1.1."""
    if not V5:
        return None
    result = Properties(getattr(PacketTypes, packet))
    for name, value in values.items():
        setattr(result, name, value)
    return result


class Client:
    """A connected client."""

    def __init__(self, client_id, persistent=False, will=None, keep_alive_s=60, **connect_properties):
        self.messages = queue.Queue()
        self.connacks = queue.Queue()
        self.subacks = queue.Queue()
        self.pubacks = queue.Queue()
        self.disconnects = queue.Queue()
        clean = {} if V5 else {"clean_session": not persistent}
        self.paho = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id,
            protocol=mqtt.MQTTv5 if V5 else mqtt.MQTTv311,
            transport="websockets" if WEBSOCKET_PATH else "tcp",
            reconnect_on_failure=False,
            **clean,
        )
        if WEBSOCKET_PATH:
            self.paho.ws_set_options(WEBSOCKET_PATH)
        self.paho.on_connect = lambda _c, _u, flags, reason, props: self.connacks.put((flags, reason, props))
        self.paho.on_subscribe = lambda _c, _u, _mid, reasons, _p: self.subacks.put([r.value for r in reasons])
        self.paho.on_publish = lambda _c, _u, _mid, reason, _p: self.pubacks.put(reason.value)
        self.paho.on_message = lambda _c, _u, message: self.messages.put(message)
        self.paho.on_disconnect = lambda _c, _u, _f, reason, _p: self.disconnects.put(reason)
        if will:
            self.paho.will_set(*will)
        if V5:
            if persistent:
                connect_properties["SessionExpiryInterval"] = 600
            self.paho.connect(
                "127.0.0.1",
                PORT,
                keep_alive_s,
                clean_start=not persistent,
                properties=properties("CONNECT", **connect_properties),
            )
        else:
            self.paho.connect("127.0.0.1", PORT, keep_alive_s)
        self.paho.loop_start()
        self.flags, self.reason, self.connack = self.connacks.get(timeout=DEADLINE_S)
        assert self.reason.value == 0, self.reason

    def subscribe(self, *filters, qos=2, **subscribe_properties):
        """Subscribes in one packet, and waits for the answer."""
        options = mqtt.SubscribeOptions(qos) if V5 else qos
        self.paho.subscribe(
            [(filter, options) for filter in filters],
            properties=properties("SUBSCRIBE", **subscribe_properties),
        )
        return self.subacks.get(timeout=DEADLINE_S)

    def publish(self, topic, payload, qos=0, retain=False, **publish_properties):
        """Publishes without waiting."""
        return self.paho.publish(topic, payload, qos, retain, properties("PUBLISH", **publish_properties))

    def published(self, count=1):
        """Waits until so many publishes have gone their whole way: their reason codes."""
        return [self.pubacks.get(timeout=DEADLINE_S) for _ in range(count)]

    def message(self):
        return self.messages.get(timeout=DEADLINE_S)

    def close(self):
        """Leaves with a DISCONNECT."""
        self.paho.disconnect()
        self.disconnects.get(timeout=DEADLINE_S)
        self.paho.loop_stop()

    def vanish(self):
        """Leaves without a word."""
        self.paho.socket().shutdown(socket.SHUT_RDWR)
        self.disconnects.get(timeout=DEADLINE_S)
        self.paho.loop_stop()
