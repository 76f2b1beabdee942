package main

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"testing"
)

// The committed fixtures are what the recipes make, and what is recorded of them is still true.
func TestFixturesAreWhatTheRecipesMake(t *testing.T) {
	check := func(t *testing.T, dir, committed string) {
		t.Helper()
		if !maps.Equal(files(t, dir), files(t, committed)) {
			t.Errorf("%s differs from what is made now: scripts/make-fixtures", committed)
		}
		var now, then fixture
		for path, x := range map[string]*fixture{dir + ".json": &now, committed + ".json": &then} {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(b, x); err != nil {
				t.Fatal(err)
			}
			x.Prometheus = nil // No servers here.
		}
		a, _ := json.Marshal(now)
		b, _ := json.Marshal(then)
		if string(a) != string(b) {
			t.Errorf("%s.json: now\n%s\nthen\n%s", committed, a, b)
		}
	}
	t.Run("incident", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "incident")
		oracle(t, "incident", dir)
		check(t, dir, filepath.Join("..", "incident"))
	})
	t.Run("damaged", func(t *testing.T) {
		dir := t.TempDir()
		oracle(t, "damaged", dir)
		for _, k := range damagedKinds {
			check(t, filepath.Join(dir, k.name), filepath.Join("..", "damaged", k.name))
		}
	})
}
