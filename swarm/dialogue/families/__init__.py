"""How models of each family write calls of tools, as parsers over a `Reader`."""
