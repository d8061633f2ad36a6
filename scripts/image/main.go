// Command image makes what is flashed to an SD card or an eMMC: U-Boot's script,
// two slots with Debian's kernel and gridgate, a third one that is never written,
// and a partition for data. Without root and loop devices; the same input gives
// the same bytes.
//
//	image -board virt-armv7 -agent bin/armv7/gridgate -init bin/armv7/init -out dist/gridgate-virt-armv7.img
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	var b build
	name := flag.String("board", "", "the `BOARD` to make it for")
	list := flag.Bool("list", false, "print the boards")
	flag.StringVar(&b.agent, "agent", "", "gridgate for the board, a `FILE`")
	flag.StringVar(&b.init, "init", "", "init for the board, a `FILE`")
	flag.StringVar(&b.top, "top", ".", "`DIR` of the source tree")
	flag.StringVar(&b.cache, "cache", "bin/image", "`DIR` to keep what Debian gave in")
	flag.StringVar(&b.out, "out", "", "the image, a `FILE`; it comes compressed too, as FILE.zst")
	flag.StringVar(&b.slotDir, "slot", "", "leave the files of a slot in a new `DIR` too, for gridfog firmware pack")
	flag.IntVar(&b.data, "data", 128, "size of the data partition in `MIB`")
	flag.Parse()
	if *list {
		for _, x := range boards() {
			fmt.Fprintf(os.Stdout, "%-16s %-6s %s\n", x.name, x.bin, x.text)
		}
		return
	}
	var err error
	if b.board, err = boardOf(*name); err == nil {
		err = b.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func (b *build) run() error {
	for flag, v := range map[string]string{"-agent": b.agent, "-init": b.init, "-out": b.out} {
		if v == "" {
			return fmt.Errorf("%s is missing", flag)
		}
	}
	if err := os.MkdirAll(filepath.Dir(b.out), 0o755); err != nil {
		return err
	}
	var err error
	if b.cache, err = filepath.Abs(b.cache); err != nil {
		return err
	}
	if b.work, err = os.MkdirTemp("", "gridgate-image-"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(b.work) }() // of the temporary folder anyway
	if err := b.assemble(); err != nil {
		return err
	}
	if err := b.blockMap(); err != nil {
		return err
	}
	return run("zstd", "-q", "-f", "-19", "-T2", "--long=27", b.out, "-o", b.out+".zst")
}
