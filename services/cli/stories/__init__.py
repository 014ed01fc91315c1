"""What facts tell about runs: stories, prompts and totals; pure, without any output."""
