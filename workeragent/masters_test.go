package workeragent

const (
	idA = "12D3KooWHK4iyeq2pKpWjVYZ6uxnbVvPcjPrxhRKkYeeaCS6oxbf"
	idB = "12D3KooWCUJUMmPN3EFqRfzuzBnSiFi23C3QVJemqLEQFb8Z4yhB"
)
