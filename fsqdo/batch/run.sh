cd -- {{directory}} || exit 1
{{clean}}
export {{env}}
{{prologue}}
exec {{exec}}
