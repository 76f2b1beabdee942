package main

import "io"

func runRead(args []string, out io.Writer) error { return nil }
