# One byte for each start; appending is atomic.
printf x >> "$1/$2"
echo "begin $2"
sleep "$3"
echo "end $2"
