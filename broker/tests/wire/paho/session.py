"""Messages wait for a session that is away and arrive in order; nothing arrives twice."""

from common import Client

away = Client("traveller", persistent=True)
print("present", away.flags.session_present)
away.subscribe("post/#")
away.vanish()

sender = Client("sender")
for number in range(100):
    sender.publish("post/1", str(number), 2)
sender.published(100)

back = Client("traveller", persistent=True)
print("present", back.flags.session_present)
sender.publish("post/1", "last", 2)
got = []
while not got or got[-1] != "last":
    got.append(back.message().payload.decode())
print("in order", got == [str(number) for number in range(100)] + ["last"])
back.close()
sender.close()
