"""What deploy/demo and deploy/drill are made of."""
