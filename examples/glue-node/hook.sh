# A hook that does its work and leaves the tidying up to a job in the background, as `git` does with `git gc --auto`.
#   sh hook.sh leave    ends at once
#   sh hook.sh wait     waits for the job, as a parent should

sleep 0.1 & # stands for the job
if [ "$1" = wait ]; then
  wait
fi
