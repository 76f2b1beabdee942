package main

import "io"

func runOpen(args []string, out io.Writer) error { return nil }
