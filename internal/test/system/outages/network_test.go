package outages

import (
	"testing"
	"time"
)

// badWires are the ways in which a connection can be bad.
func badWires(w *wire) []fault {
	// for a while the wire is bad in that way.
	badly := func(kind, direction string, a attributes) func(*testing.T) {
		return func(*testing.T) {
			heal := w.poison(kind, direction, a)
			<-time.After(aWhile)
			heal()
		}
	}
	return []fault{
		{"cut", func(_ *testing.T) {
			w.cut()
			<-time.After(aWhile)
			w.plug()
		}},
		{"cut again and again", func(_ *testing.T) {
			// Slow as well, so that there are always answers on their way.
			heal := w.poison("latency", fromServer, attributes{"latency": 20})
			for range 5 {
				w.cut()
				w.plug()
				<-time.After(aWhile / 5)
			}
			heal()
		}},
		{"slow", badly("latency", fromServer, attributes{"latency": 150, "jitter": 100})},
		{"in small pieces", badly("slicer", fromServer, attributes{"average_size": 40, "size_variation": 20, "delay": 200})},
		{"silent on the way there", badly("timeout", toServer, attributes{"timeout": 0})},
		{"silent on the way back", badly("timeout", fromServer, attributes{"timeout": 0})},
		{"reset after the question was sent", badly("reset_peer", fromServer, attributes{"timeout": 20})},
		{"closed in the middle of an answer", badly("limit_data", fromServer, attributes{"bytes": 1500})},
		{"closed in the middle of a question", badly("limit_data", toServer, attributes{"bytes": 1500})},
	}
}
