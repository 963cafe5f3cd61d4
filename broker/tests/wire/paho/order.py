"""1,000 QoS 2 messages from one client to another: all, in order, none twice."""

from common import Client

receiver = Client("receiver")
receiver.subscribe("numbers", qos=2)
sender = Client("sender")
for number in range(1_000):
    sender.publish("numbers", str(number), 2)
print("accepted", set(sender.published(1_000)))
sender.publish("numbers", "last", 2)
got = []
while not got or got[-1] != "last":
    got.append(receiver.message().payload.decode())
print("messages", len(got) - 1)
print("in order", got[:-1] == [str(number) for number in range(1_000)])
receiver.close()
sender.close()
