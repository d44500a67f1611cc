/* replay.c - runs a fuzz target over the files of its corpus: replay DIRECTORY. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	struct stat st;

	if (!f || fstat(fileno(f), &st) < 0) {
		perror(path);
		if (f)
			fclose(f);
		return -1;
	}
	size_t size = (size_t)st.st_size;
	uint8_t *data = malloc(size ? size : 1);
	int r = data && fread(data, 1, size, f) == size ? 0 : -1;
	fclose(f);
	if (r == 0)
		LLVMFuzzerTestOneInput(data, size);
	free(data);
	return r;
}

static int replay_directory(const char *path, DIR *dir)
{
	char name[4096];
	int files = 0;

	for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		if (replay_file(name) < 0)
			return -1;
		files++;
	}
	printf("%d files\n", files);
	return files > 0 ? 0 : -1;
}

int main(int argc, char **argv)
{
	DIR *dir = argc == 2 ? opendir(argv[1]) : NULL;

	if (!dir) {
		fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
		return 2;
	}
	int r = replay_directory(argv[1], dir);
	closedir(dir);
	return r < 0;
}
