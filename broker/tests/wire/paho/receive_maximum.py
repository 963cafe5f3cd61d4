"""The broker has no more in flight than the client's receive maximum (MQTT 5)."""

from common import Client

client = Client("client", ReceiveMaximum=3)
client.paho.manual_ack_set(True)
client.subscribe("a", qos=1)
sender = Client("sender")
for number in range(10):
    sender.publish("a", str(number), 1)
sender.published(10)
for number in range(10):
    message = client.message()
    in_flight = client.messages.qsize() + 1
    assert in_flight <= 3, in_flight
    print(message.payload.decode(), end=" ")
    client.paho.ack(message.mid, message.qos)
print()
client.close()
sender.close()
