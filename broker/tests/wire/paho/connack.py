"""What the broker tells a client that connects (MQTT 5)."""

from common import Client

names = set()
for _ in range(2):
    client = Client("", keep_alive_s=600, SessionExpiryInterval=100)
    names.add(client.connack.AssignedClientIdentifier)
    client.close()
print("identifiers", len(names - {""}))
print("ServerKeepAlive", client.connack.ServerKeepAlive)
print("ReceiveMaximum", client.connack.ReceiveMaximum)
print("MaximumPacketSize", client.connack.MaximumPacketSize)
print("SessionExpiryInterval", client.connack.SessionExpiryInterval)
