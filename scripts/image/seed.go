package main

import (
	"os"

	"gridgate/scripts/image/fat"
)

// slotFAT makes the file system of a slot.
func (b *build) slotFAT(slot string, files map[string]string) (string, error) {
	if slot == "a" {
		return b.fat("a", "GWA", 0x67770002, slotSize, files)
	}
	return b.fat("b", "GWB", 0x67770003, slotSize, files)
}

// seed gives what an empty file system of a slot begins with: init has no mkfs.
func (b *build) seed(slot string) ([]byte, error) {
	path, err := b.slotFAT(slot, nil)
	if err != nil {
		return nil, err
	}
	empty, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return fat.Make(empty)
}
