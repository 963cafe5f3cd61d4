// A client subscribes and publishes to itself with every QoS, small and large, and prints what came.
//
// Called as talk.mjs URL VERSION, where VERSION is 4 (MQTT 3.1.1) or 5. Certificates are believed by NODE_EXTRA_CA_CERTS.

import mqtt from "mqtt";

const [url, version] = process.argv.slice(2);

const deadline = setTimeout(() => {
  console.error("not done in time");
  process.exit(1);
}, 20_000);

const client = await mqtt.connectAsync(url, {
  protocolVersion: Number(version),
  clientId: "mqttjs",
  reconnectPeriod: 0,
  rejectUnauthorized: true,
});
client.on("error", (error) => {
  console.error(error);
  process.exit(1);
});

const waiting = [];
const messages = [];
client.on("message", (topic, payload, packet) => {
  const message = { topic, payload, qos: packet.qos };
  const waits = waiting.shift();
  waits ? waits(message) : messages.push(message);
});
const next = () => messages.shift() ?? new Promise((resolve) => waiting.push(resolve));

await client.subscribeAsync("to/me", { qos: 2 });
for (const qos of [0, 1, 2]) {
  for (const size of [2, 200, 200_000]) {
    const sent = Buffer.alloc(size, qos + 65);
    await client.publishAsync("to/me", sent, { qos });
    const message = await next();
    console.log(message.topic, message.qos, message.payload.equals(sent) ? message.payload.length : "damaged");
  }
}
await client.endAsync();
clearTimeout(deadline);
console.log("bye");
