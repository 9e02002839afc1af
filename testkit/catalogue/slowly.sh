# Prints when it starts and when it ends, so that a test sees whether two of these overlapped.
echo start
sleep "$1"
echo end
