"""Videos whose shot boundaries are known: pieces of real shots with cuts, fades and dissolves between."""
