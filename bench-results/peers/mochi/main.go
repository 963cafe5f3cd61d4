// Runs mochi-mqtt, the library, on one address: everything in memory, anybody may do anything.
package main

import (
	"log"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"
)

// What may be unacknowledged at a client and wait for it: it counts the two together, Millstream allows 64 and 10,000.
const maximumInflight = 64 + 10_000

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: mochi-peer ADDRESS")
	}
	capabilities := mqtt.NewDefaultServerCapabilities()
	capabilities.MaximumInflight = maximumInflight
	server := mqtt.New(&mqtt.Options{
		Capabilities: capabilities,
		Logger:       slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	if err := server.AddHook(new(auth.AllowHook), nil); err != nil {
		log.Fatal(err)
	}
	if err := server.AddListener(listeners.NewTCP(listeners.Config{ID: "tcp", Address: os.Args[1]})); err != nil {
		log.Fatal(err)
	}
	if err := server.Serve(); err != nil {
		log.Fatal(err)
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGINT, syscall.SIGTERM)
	<-ended
	server.Close()
}
