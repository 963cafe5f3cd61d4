"""500 KB go both ways in every QoS."""

from common import Client

client = Client("client")
client.subscribe("large", qos=2)
payload = bytes(number % 251 for number in range(500_000))
for qos in (0, 1, 2):
    client.publish("large", payload, qos)
    print(qos, client.message().payload == payload)
client.close()
