"""What tests share: a scripted upstream, a real gunicorn, exchanges to replay."""
