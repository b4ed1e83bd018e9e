package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// memcachedBytes is the size of the items by memcached's own count, without the
// unused rest of their slab chunks.
func memcachedBytes(addr string) (float64, error) {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return 0, err
	}
	if _, err := fmt.Fprint(c, "stats\r\n"); err != nil {
		return 0, err
	}
	for lines := bufio.NewScanner(c); lines.Scan() && lines.Text() != "END"; {
		if n, ok := strings.CutPrefix(lines.Text(), "STAT bytes "); ok {
			return strconv.ParseFloat(n, 64)
		}
	}
	return 0, errors.New("memcached's stats have no bytes")
}
