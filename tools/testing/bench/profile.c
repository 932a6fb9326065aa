// SPDX-License-Identifier: GPL-2.0
/*
 * A plugin of QEMU that counts the instructions of the guest by block of code, for `make profile`.
 *
 * What is counted lies between two marks that the guest executes (measured.py): instructions that do nothing, with a
 * number in them. At the second one the counts are appended to the file that the argument out=FILE names, and begin
 * anew: a line for each block, "ADDRESS INSTRUCTIONS EXECUTIONS BYTES-IN-HEX", then an empty one. An instruction that
 * faults ends its block, which is counted whole all the same.
 *
 * The guest has one processor, so nothing here is done twice at a time.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of qemu-plugin.h, which Debian has no package of. */
#define EXPORT __attribute__((visibility("default")))
typedef uint64_t qemu_plugin_id_t;
typedef struct qemu_info_t qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*translated_cb)(qemu_plugin_id_t id, struct qemu_plugin_tb *tb);
typedef void (*executed_cb)(unsigned int vcpu, void *data);
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };
EXPORT int qemu_plugin_version = 3;
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, translated_cb cb);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, executed_cb cb, enum qemu_plugin_cb_flags flags,
					  void *data);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, executed_cb cb,
					    enum qemu_plugin_cb_flags flags, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *to, size_t length);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv);

/* nopl NUMBER(%rax): as measured.py has them. */
static const unsigned char begin_mark[] = { 0x0f, 0x1f, 0x80, 'd', 'm', 'r', 1 };
static const unsigned char end_mark[] = { 0x0f, 0x1f, 0x80, 'd', 'm', 'r', 0 };

struct block {
	struct block *next;
	uint64_t address;
	uint64_t executions;
	unsigned int instructions;
	unsigned int bytes;
	unsigned char code[64];
};

static struct block *blocks;
static bool counting;
static const char *out;

static void executed(unsigned int vcpu, void *data)
{
	struct block *block = data;

	if (counting)
		block->executions++;
}

static void begin(unsigned int vcpu, void *data)
{
	counting = true;
}

static void end(unsigned int vcpu, void *data)
{
	FILE *file = fopen(out, "a");

	if (!file) {
		perror(out);
		exit(1);
	}
	counting = false;
	for (struct block *block = blocks; block; block = block->next) {
		if (!block->executions)
			continue;
		fprintf(file, "%" PRIx64 " %u %" PRIu64 " ", block->address, block->instructions, block->executions);
		for (unsigned int at = 0; at < block->bytes; at++)
			fprintf(file, "%02x", block->code[at]);
		fputc('\n', file);
		block->executions = 0;
	}
	fputc('\n', file);
	fclose(file);
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	size_t instructions = qemu_plugin_tb_n_insns(tb);
	struct block *block = calloc(1, sizeof(*block));

	if (!block)
		abort();
	block->address = qemu_plugin_tb_vaddr(tb);
	block->instructions = instructions;
	for (size_t at = 0; at < instructions; at++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, at);
		unsigned char code[16];
		size_t bytes = qemu_plugin_insn_size(insn);

		if (bytes > sizeof(code) || qemu_plugin_insn_data(insn, code, bytes) != bytes)
			continue;
		if (bytes == sizeof(begin_mark) && !memcmp(code, begin_mark, bytes))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, begin, QEMU_PLUGIN_CB_NO_REGS, NULL);
		if (bytes == sizeof(end_mark) && !memcmp(code, end_mark, bytes))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, end, QEMU_PLUGIN_CB_NO_REGS, NULL);
		if (block->bytes + bytes <= sizeof(block->code)) {
			memcpy(block->code + block->bytes, code, bytes);
			block->bytes += bytes;
		}
	}
	block->next = blocks;
	blocks = block;
	qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, QEMU_PLUGIN_CB_NO_REGS, block);
}

int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
	if (argc != 1 || strncmp(argv[0], "out=", 4)) {
		fputs("expected one argument, out=FILE\n", stderr);
		return -1;
	}
	out = strdup(argv[0] + 4);
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
