# Text at full speed: the first line and the last line can be told.
echo first
yes 0123456789abcdefghijklmnopqrstuvwxyz | head -c "$(($1 * 1024 * 1024))"
echo
echo last
