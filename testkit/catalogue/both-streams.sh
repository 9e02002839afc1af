for i in 1 2 3; do
  echo "out $i"
  sleep 0.15
  echo "err $i" >&2
  sleep 0.15
done
