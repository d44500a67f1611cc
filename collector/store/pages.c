/* The pages of an LMDB 0.9 file, looked at without LMDB: every tree's pages are where they claim to
 * be, whole, and each used once. LMDB itself checks next to nothing of this: a wrong offset in a
 * page lets it write outside of the page, a wrong page count frees its neighbours.
 *
 * On disk, all little-endian:
 *   page      u64 number, u16 pad, u16 flags, then u16 lower, u16 upper, or u32 pages (overflow);
 *             from 16 on the nodes' offsets until lower; the nodes, packed, from upper on
 *   node      u16 low, u16 high, u16 flags, u16 key length, key, value. In a branch low, high and
 *             flags are the child's number; in a leaf low and high the value's length
 *   tree      u32 pad, u16 flags, u16 depth, u64 branches, leaves, overflow pages, entries, root
 *   meta      after its page's header: u32 magic, u32 version, u64 address, u64 map size, the trees
 *             of free pages and of names, u64 last page, u64 transaction */
#include "store/db.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"

enum { PAGE_BRANCH = 1, PAGE_LEAF = 2, PAGE_OVERFLOW = 4, PAGE_META = 8 };
enum { NODE_BIG = 1, NODE_TREE = 2 };
enum { PAGE_HEAD = 16, NODE_HEAD = 8, MOST_DEPTH = 32 };

struct tree {
	uint32_t pad;
	uint16_t flags, depth;
	uint64_t branches, leaves, overflows, entries, root;
};
_Static_assert(sizeof(struct tree) == 48, "MDB_db");

struct meta {
	uint32_t magic, version;
	uint64_t address, map_bytes;
	struct tree free, names;
	uint64_t last_page, txn;
};
_Static_assert(sizeof(struct meta) == 136, "MDB_meta");

struct page_head {
	uint64_t number;
	uint16_t pad, flags, lower, upper;
};

struct node {
	uint16_t low, high, flags, key_len;
};

struct check {
	int fd;
	enum scrutiny scrutiny;
	const uint8_t *map;
	uint64_t page_bytes, last_page, until_ns;
	uint8_t *used;                        // a bit a page
	uint64_t branches, leaves, overflows; // of the tree being walked
	uint64_t pages;
	bool late; // no time left: the rest is taken on trust
};

static bool check_tree(struct check *c, const struct tree *t, bool is_free_list);

static bool use_pages(struct check *c, uint64_t number, uint64_t count)
{
	if (number < 2 || count == 0 || count > c->last_page || number > c->last_page + 1 - count)
		return false;
	for (uint64_t n = number; n < number + count; n++) {
		uint8_t bit = (uint8_t)(1u << (n % 8));
		if (c->used[n / 8] & bit)
			return false;
		c->used[n / 8] |= bit;
	}
	return true;
}

/* The head of a long value's pages, which counts when they are freed. It is read, not mapped: a
 * fault would bring in its neighbours too, for each block of the log. */
static bool check_overflow_head(const struct check *c, uint64_t number, uint64_t pages)
{
	uint8_t head[PAGE_HEAD];
	struct page_head h;
	uint32_t said;

	if (pread(c->fd, head, sizeof(head), (off_t)(number * c->page_bytes)) != PAGE_HEAD)
		return false;
	memcpy(&h, head, sizeof(h));
	memcpy(&said, head + 12, sizeof(said));
	return h.number == number && h.flags == PAGE_OVERFLOW && said == pages;
}

/* A long value's own pages. */
static const uint8_t *check_overflow(struct check *c, const uint8_t *value, uint64_t len)
{
	uint64_t number;

	memcpy(&number, value, sizeof(number));
	uint64_t pages = (PAGE_HEAD + len + c->page_bytes - 1) / c->page_bytes;
	if (!use_pages(c, number, pages))
		return NULL;
	if (c->scrutiny == FOR_WRITING && !check_overflow_head(c, number, pages))
		return NULL;
	c->overflows += pages;
	return c->map + number * c->page_bytes + PAGE_HEAD;
}

/* A list of free pages: its length, then their numbers, descending. */
static bool check_free_list(struct check *c, const uint8_t *p, uint64_t len)
{
	uint64_t count, number, above = UINT64_MAX;

	if (len < sizeof(count))
		return false;
	memcpy(&count, p, sizeof(count));
	if (count >= len / sizeof(count))
		return false;
	for (uint64_t i = 1; i <= count; i++) {
		memcpy(&number, p + i * sizeof(number), sizeof(number));
		if (number >= above || !use_pages(c, number, 1))
			return false;
		above = number;
	}
	return true;
}

static bool check_named_tree(struct check *c, const uint8_t *value, uint64_t len)
{
	struct check sub = *c;
	struct tree t;

	if (len != sizeof(t))
		return false;
	memcpy(&t, value, sizeof(t));
	bool sound = check_tree(&sub, &t, false);
	c->pages = sub.pages;
	c->late = sub.late;
	return sound;
}

static bool check_value(struct check *c, const struct node *n, const uint8_t *value,
                        bool is_free_list)
{
	uint64_t len = n->low | (uint64_t)n->high << 16;

	if (n->flags & NODE_BIG) {
		value = check_overflow(c, value, len);
		if (!value)
			return false;
	}
	if (n->flags & NODE_TREE)
		return check_named_tree(c, value, len);
	return !is_free_list || check_free_list(c, value, len);
}

/* A node's size in its page, as its head says. */
static uint64_t node_bytes(const struct node *n, bool is_leaf)
{
	uint64_t bytes = NODE_HEAD + n->key_len;

	if (is_leaf)
		bytes += n->flags & NODE_BIG ? sizeof(uint64_t) : n->low | (uint64_t)n->high << 16;
	return (bytes + 1) & ~1ull;
}

static bool check_page_head(const struct check *c, const struct page_head *h, uint64_t number,
                            bool is_leaf)
{
	return h->number == number && h->flags == (is_leaf ? PAGE_LEAF : PAGE_BRANCH) &&
	       h->lower > PAGE_HEAD && h->lower % 2 == 0 && h->lower <= h->upper &&
	       h->upper <= c->page_bytes;
}

static bool check_page(struct check *c, uint64_t number, unsigned depth, bool is_free_list)
{
	struct page_head h;
	struct node n;
	uint16_t at;
	bool is_leaf = depth == 1;

	if (++c->pages % 64 == 0 && clock_mono_ns() > c->until_ns)
		c->late = true;
	if (!use_pages(c, number, 1))
		return false;
	const uint8_t *page = c->map + number * c->page_bytes;
	memcpy(&h, page, sizeof(h));
	if (!check_page_head(c, &h, number, is_leaf))
		return false;
	is_leaf ? c->leaves++ : c->branches++;
	uint64_t packed = h.upper;
	for (uint16_t i = PAGE_HEAD; i < h.lower && !c->late; i = (uint16_t)(i + sizeof(at))) {
		memcpy(&at, page + i, sizeof(at));
		if (at < h.upper || at + sizeof(n) > c->page_bytes)
			return false;
		memcpy(&n, page + at, sizeof(n));
		uint64_t bytes = node_bytes(&n, is_leaf);
		packed += bytes;
		if (at + bytes > c->page_bytes || packed > c->page_bytes)
			return false;
		uint64_t child = n.low | (uint64_t)n.high << 16 | (uint64_t)n.flags << 32;
		if (is_leaf ? !check_value(c, &n, page + at + NODE_HEAD + n.key_len, is_free_list)
		            : !check_page(c, child, depth - 1, is_free_list))
			return false;
	}
	return c->late || packed == c->page_bytes;
}

static bool check_tree(struct check *c, const struct tree *t, bool is_free_list)
{
	if (t->root == UINT64_MAX)
		return t->depth == 0 && t->entries == 0;
	if (t->depth == 0 || t->depth > MOST_DEPTH)
		return false;
	c->branches = 0;
	c->leaves = 0;
	c->overflows = 0;
	if (!check_page(c, t->root, t->depth, is_free_list))
		return false;
	return c->late || (c->branches == t->branches && c->leaves == t->leaves &&
	                   c->overflows == t->overflows);
}

/* The newer of both meta pages. */
static bool read_meta(const uint8_t *map, uint64_t page_bytes, struct meta *ret)
{
	struct page_head h;
	struct meta m[2];

	for (unsigned i = 0; i < 2; i++) {
		memcpy(&h, map + i * page_bytes, sizeof(h));
		memcpy(&m[i], map + i * page_bytes + PAGE_HEAD, sizeof(m[i]));
		if (h.flags != PAGE_META || m[i].free.pad != page_bytes)
			return false;
	}
	*ret = m[m[1].txn > m[0].txn];
	return true;
}

bool pages_are_sound(int fd, uint64_t bytes, enum scrutiny scrutiny, uint64_t until_ns)
{
	struct check c = {.fd = fd,
	                  .scrutiny = scrutiny,
	                  .page_bytes = (uint64_t)sysconf(_SC_PAGESIZE),
	                  .until_ns = until_ns};
	struct meta m;

	if (bytes < 2 * c.page_bytes)
		return false;
	c.map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
	if (c.map == MAP_FAILED)
		return true; // nothing is known; LMDB will say
	bool sound = read_meta(c.map, c.page_bytes, &m) && m.last_page >= 1 &&
	             m.last_page < bytes / c.page_bytes;
	if (sound) {
		c.last_page = m.last_page;
		c.used = calloc(1, m.last_page / 8 + 1);
		sound = !c.used ||
		        (check_tree(&c, &m.free, true) && check_tree(&c, &m.names, false));
		free(c.used);
	}
	munmap((void *)(uintptr_t)c.map, bytes);
	return sound;
}
