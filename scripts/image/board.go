package main

import (
	"fmt"
	"slices"
	"strings"
)

// board is a kind of gateway that an image is made for.
type board struct {
	name    string
	text    string
	deb     string // Debian's name of the architecture
	bin     string // folder of gridgate's build
	kernel  string // flavour of Debian's kernel
	console []string
	dtb     string   // file of the kernel's package; empty: U-Boot knows the hardware
	uboot   string   // file of Debian's package, written before the first partition; empty: the machine has U-Boot
	loader  string   // Debian package that has it
	mbr     bool     // boot loader where a GPT would be
	boot    []string // modules that are loaded before anything else is looked at
}

// kernelABI is the version of Debian's kernel that images are made of. It moves
// when Debian replaces it; docs/boards.md says how.
const kernelABI = "6.1.0-50"

// Modules of file systems and of what every gateway has.
func common() []string {
	return []string{"ext4", "vfat", "nls_cp437", "nls_ascii", "af_packet", "ipv6", "softdog", "crc32c_generic"}
}

// Modules that are in the image and loaded where their hardware is.
func byHardware() []string {
	return []string{
		// adapters for RS-485 and optical heads
		"ftdi_sio", "pl2303", "ch341", "cp210x", "cdc-acm", "usbserial",
		// modems
		"ppp_async", "option", "qcserial", "sierra", "cdc_ether", "cdc_ncm", "cdc_mbim", "qmi_wwan", "rndis_host",
		// sticks
		"usb-storage", "uas", "sd_mod",
		// networks
		"smsc95xx", "asix", "r8152", "ax88179_178a",
	}
}

func boards() []board {
	virt := []string{"virtio_mmio", "virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "virtio_rng"}
	sunxi := []string{"sunxi-mmc", "dwmac-sun8i", "stmmac-platform", "sunxi_wdt", "ehci-platform", "ohci-platform", "phy-sun4i-usb", "axp20x-rsb", "axp20x-i2c"}
	return []board{
		{
			name: "virt-armv7", text: "QEMU's virt machine, Cortex-A7", deb: "armhf", bin: "armv7", kernel: "armmp",
			console: []string{"ttyAMA0,115200"}, boot: virt,
		},
		{
			name: "virt-arm64", text: "QEMU's virt machine, Cortex-A53", deb: "arm64", bin: "arm64", kernel: "arm64",
			console: []string{"ttyAMA0,115200"}, boot: virt,
		},
		{
			name: "orangepi-plus", text: "Xunlong Orange Pi Plus (Allwinner H3)", deb: "armhf", bin: "armv7", kernel: "armmp",
			console: []string{"ttyS0,115200"}, dtb: "sun8i-h3-orangepi-plus.dtb", mbr: true, boot: sunxi,
			loader: "u-boot-sunxi", uboot: "usr/lib/u-boot/orangepi_plus/u-boot-sunxi-with-spl.bin",
		},
		{
			name: "olinuxino-lime2", text: "Olimex A20-OLinuXino-LIME2", deb: "armhf", bin: "armv7", kernel: "armmp",
			console: []string{"ttyS0,115200"}, dtb: "sun7i-a20-olinuxino-lime2.dtb", mbr: true, boot: append(sunxi, "dwmac-sunxi"),
			loader: "u-boot-sunxi", uboot: "usr/lib/u-boot/A20-OLinuXino-Lime2/u-boot-sunxi-with-spl.bin",
		},
	}
}

func boardOf(name string) (board, error) {
	all := boards()
	i := slices.IndexFunc(all, func(b board) bool { return b.name == name })
	if i < 0 {
		var names []string
		for _, b := range all {
			names = append(names, b.name)
		}
		return board{}, fmt.Errorf("no board %q; there are %s", name, strings.Join(names, ", "))
	}
	return all[i], nil
}
