// Runs aedes, the library, on one port of 127.0.0.1: everything in memory, anybody may do anything. It has no bounds for
// messages in flight or waiting; `queueLimit` counts packets that come before a connection is accepted.
import { createServer } from 'node:net'
import { Aedes } from 'aedes'

const port = Number(process.argv[2])
if (!Number.isInteger(port)) {
  console.error('usage: node server.js PORT')
  process.exit(2)
}
const aedes = await Aedes.createBroker()
for (const event of ['clientError', 'connectionError']) {
  aedes.on(event, (client, error) => console.error(`${event}: ${error.message}`))
}
createServer({ noDelay: true }, aedes.handle).listen(port, '127.0.0.1')
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, () => process.exit(0))
}
