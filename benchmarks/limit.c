/* The limit: how fast a bare C program can fan a file out on this machine.
 *
 *     limit FILE TICK_MS
 *
 * Follows FILE and sends each viewer its lines as Server-Sent Events with an id per line: every
 * TICK_MS, all that is new by one send() per viewer, from one buffer that all share. It prints its
 * port. Nothing is left out that a viewer needs, and there is nothing else in it: no HTTP but the
 * head of a response, no resuming, no end.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MOST_VIEWERS 65536
#define READ_BYTES (1 << 20)
#define LAG_MICROSECONDS 100

struct viewer {
	int fd;
	size_t offset; /* in the events */
};

static struct viewer viewers[MOST_VIEWERS];
static int viewer_count;
static char *events;
static size_t events_end, events_room;
static char line[READ_BYTES];
static size_t line_bytes;
static unsigned long line_number;

static void fail(const char *what) {
	perror(what);
	exit(1);
}

/* Listens on any free port of the loopback address. */
static int listen_on_any_port(void) {
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t size = sizeof address;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) || listen(fd, 4096) ||
	    getsockname(fd, (struct sockaddr *)&address, &size))
		fail("cannot listen");
	printf("%d\n", ntohs(address.sin_port));
	fflush(stdout);
	return fd;
}

static void accept_viewers(int listener, int epoll) {
	int fd, on = 1;
	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
		struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
	}
}

/* A request has come: whatever it asks, the answer is the log from its start. */
static void welcome(int fd, int epoll) {
	static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
				   "Connection: close\r\n\r\n";
	char request[4096];
	epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL);
	if (read(fd, request, sizeof request) <= 0 || viewer_count == MOST_VIEWERS ||
	    send(fd, head, sizeof head - 1, 0) < 0) {
		close(fd);
		return;
	}
	viewers[viewer_count++] = (struct viewer){.fd = fd};
}

static void add_event(const char *end_of_line, size_t bytes) {
	size_t most = line_bytes + bytes + 64;
	if (events_end + most > events_room) {
		events_room = 2 * (events_room + most);
		if (!(events = realloc(events, events_room)))
			fail("no memory");
	}
	events_end += (size_t)sprintf(events + events_end, "id: %lu\ndata: ", ++line_number);
	memcpy(events + events_end, line, line_bytes);
	events_end += line_bytes;
	memcpy(events + events_end, end_of_line, bytes);
	events_end += bytes;
	events[events_end++] = '\n';
	events[events_end++] = '\n';
	line_bytes = 0;
}

/* Makes events of what is new in the file; whether there may be more. */
static int read_lines(int file) {
	static char data[READ_BYTES];
	ssize_t size = read(file, data, sizeof data);
	char *start = data, *end = data + (size > 0 ? size : 0), *newline;
	while ((newline = memchr(start, '\n', (size_t)(end - start)))) {
		add_event(start, (size_t)(newline - start));
		start = newline + 1;
	}
	if (line_bytes + (size_t)(end - start) > sizeof line)
		fail("a line is too long");
	memcpy(line + line_bytes, start, (size_t)(end - start));
	line_bytes += (size_t)(end - start);
	return size == sizeof data;
}

/* Sends each viewer all that it has not got yet; whether one of them lags behind. */
static int send_events(void) {
	int lags = 0;
	for (int i = 0; i < viewer_count; i++) {
		struct viewer *viewer = &viewers[i];
		if (viewer->fd < 0 || viewer->offset == events_end)
			continue;
		ssize_t sent = send(viewer->fd, events + viewer->offset,
				    events_end - viewer->offset, MSG_DONTWAIT);
		if (sent > 0) {
			viewer->offset += (size_t)sent;
		} else if (errno != EAGAIN) {
			close(viewer->fd);
			viewer->fd = -1;
			continue;
		}
		lags |= viewer->offset < events_end;
	}
	return lags;
}

int main(int count, char **arguments) {
	struct epoll_event ready[256];
	struct rlimit limit;
	if (count != 3) {
		fprintf(stderr, "usage: limit FILE TICK_MS\n");
		return 100;
	}
	signal(SIGPIPE, SIG_IGN);
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	int file = open(arguments[1], O_RDONLY);
	if (file < 0)
		fail(arguments[1]);
	int listener = listen_on_any_port(), epoll = epoll_create1(0);
	struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
	epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
	for (;;) {
		int found = epoll_wait(epoll, ready, 256, 0);
		for (int i = 0; i < found; i++) {
			if (ready[i].data.fd == listener)
				accept_viewers(listener, epoll);
			else
				welcome(ready[i].data.fd, epoll);
		}
		int more = read_lines(file);
		int lags = send_events();
		long pause = lags || more ? LAG_MICROSECONDS : 1000 * atol(arguments[2]);
		nanosleep(&(struct timespec){.tv_nsec = 1000 * pause}, NULL);
	}
}
