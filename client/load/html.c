/* SPDX-License-Identifier: Apache-2.0 */
#include "client/load/html.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define WIDTH  720
#define HEIGHT 220
#define LEFT   62
#define BOTTOM 26
#define TOP    12
#define POINTS 600 /* more rows are thinned */
#define LINES  4

struct page {
	char *text;
	size_t used;
	size_t room;
	bool failed;
};

static void put(struct page *page, const char *format, ...) TRIB_PRINTF(2, 3);
static void put(struct page *page, const char *format, ...)
{
	va_list args;
	va_list again;
	int n;

	va_start(args, format);
	va_copy(again, args);
	n = vsnprintf(page->text + page->used, page->room - page->used, format, args);
	if (n >= 0 && (size_t)n >= page->room - page->used) {
		size_t bigger = (page->room + (size_t)n) * 2;
		char *more = trib_realloc(page->text, bigger);

		if (more) {
			page->text = more;
			page->room = bigger;
			n = vsnprintf(page->text + page->used, bigger - page->used, format, again);
		} else {
			page->failed = true;
			n = 0;
		}
	}
	va_end(again);
	va_end(args);
	page->used += n > 0 ? (size_t)n : 0;
}

static void put_escaped(struct page *page, const char *text)
{
	for (; *text; text++) {
		switch (*text) {
		case '<':
			put(page, "&lt;");
			break;
		case '>':
			put(page, "&gt;");
			break;
		case '&':
			put(page, "&amp;");
			break;
		case '"':
			put(page, "&quot;");
			break;
		default:
			put(page, "%c", *text);
		}
	}
}

/* ---- charts ---- */

struct chart {
	const char *title;
	const char *unit;
	const json_t *rows;
	const char *x; /* member */
	const char *x_unit;
	const char *members[LINES + 1]; /* ended by NULL */
	bool bars;
};

static const char *const colours[LINES] = { "#1f6fb4", "#d1602f", "#7a4ea3", "#3a8f4d" };

static double value(const json_t *rows, size_t i, const char *name)
{
	double v = json_number_value(json_object_get(json_array_get(rows, i), name));

	return v > 0 ? v : 0;
}

static double highest(const struct chart *chart)
{
	double top = 0;

	for (size_t m = 0; chart->members[m]; m++) {
		for (size_t i = 0; i < json_array_size(chart->rows); i++) {
			double v = value(chart->rows, i, chart->members[m]);

			top = v > top ? v : top;
		}
	}
	return top;
}

/* A round number not below v. */
static double round_up(double v)
{
	double unit = 1e-6;

	while (unit * 10 <= v) {
		unit *= 10;
	}
	return v <= 0 ? 1 : v <= 2 * unit ? 2 * unit : v <= 5 * unit ? 5 * unit : 10 * unit;
}

static void put_axes(struct page *page, const struct chart *chart, double top, double last)
{
	for (int i = 0; i <= 4; i++) {
		double y = TOP + (HEIGHT - TOP - BOTTOM) * (1 - i / 4.0);

		put(page,
		    "<line x1='%d' x2='%d' y1='%.1f' y2='%.1f' stroke='#ddd'/>"
		    "<text x='%d' y='%.1f' text-anchor='end'>%g</text>",
		    LEFT, WIDTH, y, y, LEFT - 6, y + 4, top * i / 4);
	}
	for (int i = 0; i <= 4; i++) {
		put(page, "<text x='%.1f' y='%d' text-anchor='middle'>%.4g%s</text>",
		    LEFT + (WIDTH - LEFT - 20) * i / 4.0, HEIGHT - 8, last * i / 4, chart->x_unit);
	}
}

static void put_line(struct page *page, const struct chart *chart, size_t m, double top,
		     double last)
{
	size_t count = json_array_size(chart->rows);
	size_t step = count / POINTS + 1;
	double scale = (HEIGHT - TOP - BOTTOM) / top;

	if (!chart->bars) {
		put(page, "<polyline fill='none' stroke-width='1.5' stroke='%s' points='",
		    colours[m]);
	}
	for (size_t i = 0; i < count; i += step) {
		double x = LEFT + (WIDTH - LEFT - 20) * value(chart->rows, i, chart->x) / last;
		double high = value(chart->rows, i, chart->members[m]) * scale;

		if (chart->bars) {
			put(page, "<rect x='%.1f' width='2' y='%.1f' height='%.1f' fill='%s'/>", x,
			    HEIGHT - BOTTOM - high, high, colours[m]);
		} else {
			put(page, "%.1f,%.1f ", x, HEIGHT - BOTTOM - high);
		}
	}
	put(page, "%s", chart->bars ? "" : "'/>");
}

static void put_chart(struct page *page, const struct chart *chart)
{
	size_t count = json_array_size(chart->rows);
	double top = round_up(highest(chart));
	double last = count ? value(chart->rows, count - 1, chart->x) : 1;

	last = last > 0 ? last : 1;
	put(page, "<figure><figcaption>%s <small>%s</small> ", chart->title, chart->unit);
	for (size_t m = 0; chart->members[m]; m++) {
		put(page, "<span style='color:%s'>&#9632; %s</span> ", colours[m],
		    chart->members[m]);
	}
	put(page, "</figcaption><svg viewBox='0 0 %d %d' role='img'>", WIDTH, HEIGHT);
	put_axes(page, chart, top, last);
	for (size_t m = 0; chart->members[m]; m++) {
		put_line(page, chart, m, top, last);
	}
	put(page, "</svg></figure>\n");
}

static void put_charts(struct page *page, const json_t *report)
{
	const json_t *rows = trib_json_at(report, "timeline");
	const struct chart charts[] = {
		{ "Throughput",
		  "a second",
		  rows,
		  "t",
		  " s",
		  { "receipts_per_s", "checkins_per_s", "refusals_per_s" },
		  false },
		{ "Receipt latency",
		  "ms, from the intended start",
		  rows,
		  "t",
		  " s",
		  { "p50_ms", "p99_ms", "p999_ms" },
		  false },
		{ "Bytes sent", "MB/s", rows, "t", " s", { "mb_per_s" }, false },
		{ "Concurrency",
		  "",
		  rows,
		  "t",
		  " s",
		  { "connections", "clients_selected", "uploading", "arrivals_waiting" },
		  false },
		{ "Round times",
		  "s, opened to published",
		  trib_json_at(report, "rounds.list"),
		  "round",
		  "",
		  { "total_s" },
		  true },
		{ "Server memory",
		  "MB: private of the processes; shared of the machine",
		  rows,
		  "t",
		  " s",
		  { "rss_mb", "shmem_mb" },
		  false },
		{ "Server CPU", "cores", rows, "t", " s", { "cpu_cores" }, false },
	};

	for (size_t i = 0; i < TRIB_COUNT(charts); i++) {
		if (json_array_size(charts[i].rows)) {
			put_chart(page, &charts[i]);
		}
	}
}

/* ---- tables ---- */

static void put_value(struct page *page, const json_t *v)
{
	if (json_is_string(v)) {
		put_escaped(page, json_string_value(v));
	} else if (json_is_integer(v)) {
		put(page, "%lld", (long long)json_integer_value(v));
	} else if (json_is_real(v)) {
		put(page, "%.6g", json_real_value(v));
	} else {
		put(page, "%s", json_is_true(v) ? "yes" : json_is_false(v) ? "no" : "-");
	}
}

static void put_table(struct page *page, const char *title, const json_t *object)
{
	const char *name;
	json_t *v;

	if (!json_object_size(object)) {
		return;
	}
	put(page, "<table><caption>%s</caption>", title);
	json_object_foreach((json_t *)object, name, v)
	{
		if (!json_is_object(v) && !json_is_array(v)) {
			put(page, "<tr><th>");
			put_escaped(page, name);
			put(page, "</th><td>");
			put_value(page, v);
			put(page, "</td></tr>");
		}
	}
	put(page, "</table>\n");
}

static void put_latencies(struct page *page, const json_t *report)
{
	static const char *const columns[] = { "count",  "mean_ms", "p50_ms", "p90_ms",
					       "p99_ms", "p999_ms", "max_ms" };
	const char *name;
	json_t *row;

	put(page, "<table><caption>Latency, ms</caption><tr><th></th>");
	for (size_t i = 0; i < TRIB_COUNT(columns); i++) {
		put(page, "<th>%s</th>", columns[i]);
	}
	put(page, "</tr>");
	json_object_foreach(trib_json_at(report, "latency"), name, row)
	{
		if (json_is_object(row)) {
			put(page, "<tr><th>%s</th>", name);
			for (size_t i = 0; i < TRIB_COUNT(columns); i++) {
				put(page, "<td>");
				put_value(page, json_object_get(row, columns[i]));
				put(page, "</td>");
			}
			put(page, "</tr>");
		}
	}
	put(page, "</table>\n");
}

static void put_slo(struct page *page, const json_t *report)
{
	const json_t *limits = trib_json_at(report, "slo");

	if (!json_array_size(limits)) {
		return;
	}
	put(page, "<table><caption>Limits</caption>");
	for (size_t i = 0; i < json_array_size(limits); i++) {
		const json_t *limit = json_array_get(limits, i);
		bool ok = json_is_true(json_object_get(limit, "ok"));

		put(page, "<tr><th>%s</th><td>", trib_json_text(limit, "name", "?"));
		put_value(page, json_object_get(limit, "value"));
		put(page, "</td><td>limit %g</td><td class='%s'>%s</td></tr>",
		    trib_json_number(limit, "limit", 0), ok ? "ok" : "bad", ok ? "ok" : "missed");
	}
	put(page, "</table>\n");
}

char *load_html(const json_t *report)
{
	struct page page = { .text = trib_alloc(65536), .room = 65536 };

	if (!page.text) {
		return NULL;
	}
	put(&page,
	    "<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'><title>tributary load"
	    "</title><style>body{font:14px system-ui,sans-serif;max-width:1560px;margin:1em auto;"
	    "padding:0 1em;color:#222}figure{display:inline-block;width:740px;margin:8px}"
	    "svg text{font-size:11px;fill:#555}table{display:inline-table;border-collapse:collapse;"
	    "margin:8px;vertical-align:top}caption{font-weight:600;text-align:left}th,td{text-"
	    "align:"
	    "left;padding:2px 10px 2px 0;border-bottom:1px solid #eee;font-weight:400}td{"
	    "font-variant-numeric:tabular-nums}.ok{color:#207a2c}.bad{color:#b3261e}</style></head>"
	    "<body><h1>tributary load</h1><p>");
	put_escaped(&page, trib_json_text(report, "ended", ""));
	put(&page, ", %.1f s, job ", trib_json_number(report, "seconds", 0));
	put_escaped(&page, trib_json_text(report, "job.id", ""));
	put(&page, "</p>\n");
	put_slo(&page, report);
	put_latencies(&page, report);
	put(&page, "<br>");
	put_charts(&page, report);
	put(&page, "<br>");
	put_table(&page, "Counting", trib_json_at(report, "counting"));
	put_table(&page, "Refusals", trib_json_at(report, "refusals"));
	put_table(&page, "Errors nobody intended", trib_json_at(report, "errors.unintended"));
	put_table(&page, "Answers to attacks", trib_json_at(report, "errors.intended"));
	put_table(&page, "Totals", trib_json_at(report, "totals"));
	put_table(&page, "Server", trib_json_at(report, "server"));
	put_table(&page, "Rounds", trib_json_at(report, "rounds"));
	put_table(&page, "Plan", trib_json_at(report, "plan"));
	put(&page, "</body></html>\n");
	if (page.failed) {
		trib_free(page.text);
		return NULL;
	}
	return page.text;
}
