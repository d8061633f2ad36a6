# What U-Boot runs: chooses a slot, counts the try, starts it. No setexpr: some
# boards have none.
#
# gw0.env and gw1.env take turns, each with a checksum: a cut while one is written
# leaves the other. gw_seq goes 0, 1, 2, 0, so that of two the newer one is known.
# gw_first: the slot to try first; gw_a, gw_b: tries left; gw_trial: the slot that
# is not confirmed yet, or no. It is the first process's; here it is only kept.
test -n "${devtype}" || setenv devtype virtio
test -n "${devnum}" || setenv devnum 0
setenv gw_first a
setenv gw_a 6
setenv gw_b 0
setenv gw_trial no
setenv gw_s0
setenv gw_s1
setenv gw_seq
if load ${devtype} ${devnum}:1 ${kernel_addr_r} gw0.env && env import -c ${kernel_addr_r} ${filesize} gw_seq; then setenv gw_s0 ${gw_seq}; fi
setenv gw_seq
if load ${devtype} ${devnum}:1 ${kernel_addr_r} gw1.env && env import -c ${kernel_addr_r} ${filesize} gw_seq; then setenv gw_s1 ${gw_seq}; fi
setenv gw_file
if test -n "${gw_s0}"; then setenv gw_file 0; fi
if test -n "${gw_s1}"; then
  if test -z "${gw_file}"; then setenv gw_file 1; fi
  if test "${gw_s0}${gw_s1}" = 01; then setenv gw_file 1; fi
  if test "${gw_s0}${gw_s1}" = 12; then setenv gw_file 1; fi
  if test "${gw_s0}${gw_s1}" = 20; then setenv gw_file 1; fi
fi
setenv gw_seq 2
if test -n "${gw_file}"; then
  if load ${devtype} ${devnum}:1 ${kernel_addr_r} gw${gw_file}.env; then env import -c ${kernel_addr_r} ${filesize} gw_seq gw_first gw_a gw_b gw_trial; fi
else
  setenv gw_file 1
fi
test -n "${gw_trial}" || setenv gw_trial no
if test "${gw_first}" = b; then setenv gw_order "b a"; else setenv gw_order "a b"; fi
setenv gw_slot
for s in ${gw_order}; do
  if test -z "${gw_slot}"; then
    if test ${s} = a; then setenv gw_left ${gw_a}; else setenv gw_left ${gw_b}; fi
    if test ${gw_left} -gt 0; then
      setenv gw_slot ${s}
      if test ${gw_left} -gt 5; then setenv gw_left 5; elif test ${gw_left} = 5; then setenv gw_left 4; elif test ${gw_left} = 4; then setenv gw_left 3; elif test ${gw_left} = 3; then setenv gw_left 2; elif test ${gw_left} = 2; then setenv gw_left 1; else setenv gw_left 0; fi
      if test ${s} = a; then setenv gw_a ${gw_left}; setenv gw_part 2; else setenv gw_b ${gw_left}; setenv gw_part 3; fi
      setenv gw_dir ""
    fi
  fi
done
if test -n "${gw_slot}"; then
  if test "${gw_seq}" = 0; then setenv gw_seq 1; elif test "${gw_seq}" = 1; then setenv gw_seq 2; else setenv gw_seq 0; fi
  if test "${gw_file}" = 0; then setenv gw_file 1; else setenv gw_file 0; fi
  env export -c -s 0x200 ${kernel_addr_r} gw_seq gw_first gw_a gw_b gw_trial
  fatwrite ${devtype} ${devnum}:1 ${kernel_addr_r} gw${gw_file}.env 0x200
else
  setenv gw_slot f
  setenv gw_part 1
  setenv gw_dir factory/
fi
echo "gridgate: slot ${gw_slot} (first ${gw_first}, tries left: a ${gw_a}, b ${gw_b})"
setenv bootargs "@CONSOLE@ panic=5 oops=panic quiet gw.slot=${gw_slot}"
load ${devtype} ${devnum}:${gw_part} ${kernel_addr_r} ${gw_dir}vmlinuz || reset
setenv gw_fdt ${fdtcontroladdr}
if test -n "@DTB@"; then load ${devtype} ${devnum}:${gw_part} ${fdt_addr_r} ${gw_dir}board.dtb || reset; setenv gw_fdt ${fdt_addr_r}; fi
load ${devtype} ${devnum}:${gw_part} ${ramdisk_addr_r} ${gw_dir}initrd.zst || reset
@START@ ${kernel_addr_r} ${ramdisk_addr_r}:${filesize} ${gw_fdt}
reset
