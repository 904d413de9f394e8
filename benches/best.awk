# Lines of (what, tool, seconds), tab-separated: prints the least of each, and its ratio to ours.
BEGIN { FS = "\t" }
{ key = $1 FS $2; if (!(key in best) || $3 < best[key]) best[key] = $3 }
END {
  for (key in best) {
    split(key, part, FS)
    printf "best %-9s %-10s %7.2f s  %5.2fx of ours\n", part[1], part[2], best[key], best[key] / best[part[1] FS "gristmill"]
  }
}
