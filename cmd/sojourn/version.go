package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

type version struct {
	JSON bool `name:"json" help:"Print JSON."`
}

func (c *version) Run(term terminal) error {
	v := struct {
		Version  string `json:"version"`
		Revision string `json:"revision"`
		Go       string `json:"go"`
		Platform string `json:"platform"`
	}{"unknown", "", runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		v.Version = info.Main.Version
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Revision = s.Value
			}
		}
	}
	if c.JSON {
		return printJSON(term.out, v)
	}
	text := "sojourn " + v.Version
	if v.Revision != "" {
		text += " (" + v.Revision + ")"
	}
	_, err := fmt.Fprintf(term.out, "%s, %s, %s\n", text, v.Go, v.Platform)
	return err
}
