/* A Modbus server of libmodbus with the registers of testdata/peer.py.
 *
 * usage: peer tcp | rtu PATH
 *
 * Prints "ready", for TCP with the port it took. Unit 7. libmodbus refuses
 * reads beyond its mapping with exception 2; it has no holes.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { UNIT = 7, INPUTS = 0x50, SERIAL_AT = 0xFC00, SERIAL = 19451234 };

static const struct { int address; float value; } floats[] = {
	{0x00, 230.1f}, {0x02, 231.2f}, {0x04, 232.3f}, {0x06, 1.25f}, {0x08, 2.5f}, {0x0A, 3.75f},
	{0x0C, 287.5f}, {0x0E, -578.0f}, {0x10, 871.125f}, {0x34, 580.625f}, {0x3C, -12.5f}, {0x3E, 0.98f},
	{0x46, 49.98f}, {0x48, 1234.567f}, {0x4A, 0.5f}, {0x4C, 77.25f}, {0x4E, 8.0f},
};

static void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, modbus_strerror(errno));
	exit(1);
}

int main(int argc, char **argv)
{
	int tcp = argc == 2 && !strcmp(argv[1], "tcp"), listener = -1;
	if (!tcp && (argc != 3 || strcmp(argv[1], "rtu")))
		return 2;
	modbus_t *m = tcp ? modbus_new_tcp("127.0.0.1", 0) : modbus_new_rtu(argv[2], 19200, 'N', 8, 1);
	modbus_mapping_t *map = modbus_mapping_new_start_address(0, 0, 0, 0, SERIAL_AT, 2, 0, INPUTS);
	if (!m || !map || modbus_set_slave(m, UNIT))
		die("setup");
	for (size_t i = 0; i < sizeof floats / sizeof *floats; i++) {
		/* By hand: modbus_set_float_abcd of 3.1.6 swaps bytes as well. */
		uint32_t bits;
		memcpy(&bits, &floats[i].value, sizeof bits);
		map->tab_input_registers[floats[i].address] = bits >> 16;
		map->tab_input_registers[floats[i].address + 1] = bits & 0xFFFF;
	}
	map->tab_registers[0] = SERIAL >> 16;
	map->tab_registers[1] = SERIAL & 0xFFFF;
	if (tcp) {
		struct sockaddr_in at;
		socklen_t size = sizeof at;
		if ((listener = modbus_tcp_listen(m, 1)) < 0 || getsockname(listener, (struct sockaddr *)&at, &size))
			die("listen");
		printf("ready %d\n", ntohs(at.sin_port));
	} else {
		if (modbus_connect(m))
			die("connect");
		printf("ready\n");
	}
	fflush(stdout);
	for (;;) {
		unsigned char query[MODBUS_TCP_MAX_ADU_LENGTH];
		if (tcp && modbus_tcp_accept(m, &listener) < 0)
			die("accept");
		for (;;) {
			int n = modbus_receive(m, query);
			if (n > 0 && modbus_reply(m, query, n, map) < 0 && tcp)
				break;
			if (n < 0 && tcp)
				break; /* the client hung up */
		}
		modbus_close(m);
	}
}
