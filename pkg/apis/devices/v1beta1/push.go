package v1beta1

// PushMethod says where values of a property go besides the API.
type PushMethod struct {
	HTTP     *PushHTTP     `json:"http,omitempty"`
	MQTT     *PushMQTT     `json:"mqtt,omitempty"`
	OTEL     *PushOTEL     `json:"otel,omitempty"`
	DBMethod *PushDatabase `json:"dbMethod,omitempty"`
}

// PushHTTP posts values. Timeout is in milliseconds.
type PushHTTP struct {
	HostName    string `json:"hostName,omitempty"`
	Port        int64  `json:"port,omitempty"`
	RequestPath string `json:"requestPath,omitempty"`
	Timeout     int64  `json:"timeout,omitempty"`
}

// PushMQTT publishes values to a broker; Address is like tcp://host:1883.
type PushMQTT struct {
	Address  string `json:"address,omitempty"`
	Topic    string `json:"topic,omitempty"`
	QoS      int32  `json:"qos,omitempty"`
	Retained bool   `json:"retained,omitempty"`
}

// PushOTEL sends values as gauges with OTLP over HTTP.
type PushOTEL struct {
	EndpointURL string `json:"endpointURL,omitempty"`
}

// PushDatabase writes values to a database.
type PushDatabase struct {
	Influxdb2 *PushInfluxdb2 `json:"influxdb2,omitempty"`
	Redis     *PushRedis     `json:"redis,omitempty"`
	TDEngine  *PushTDEngine  `json:"TDEngine,omitempty"`
	MySQL     *PushMySQL     `json:"mysql,omitempty"`
}

// PushInfluxdb2 writes points to InfluxDB 2; the token comes from the driver's environment.
type PushInfluxdb2 struct {
	Client *InfluxClient `json:"influxdb2ClientConfig,omitempty"`
	Data   *InfluxData   `json:"influxdb2DataConfig,omitempty"`
}

// InfluxClient says which bucket of which server.
type InfluxClient struct {
	URL    string `json:"url,omitempty"`
	Org    string `json:"org,omitempty"`
	Bucket string `json:"bucket,omitempty"`
}

// InfluxData says what the points look like.
type InfluxData struct {
	Measurement string            `json:"measurement,omitempty"`
	Tag         map[string]string `json:"tag,omitempty"`
	FieldKey    string            `json:"fieldKey,omitempty"`
}

// PushRedis names a redis server; the password comes from the driver's environment.
type PushRedis struct {
	Client *RedisClient `json:"redisClientConfig,omitempty"`
}

// RedisClient says which database of which server.
type RedisClient struct {
	Addr         string `json:"addr,omitempty"`
	DB           int    `json:"db,omitempty"`
	PoolSize     int    `json:"poolsize,omitempty"`
	MinIdleConns int    `json:"minIdleConns,omitempty"`
}

// PushTDEngine names a TDengine server.
type PushTDEngine struct {
	Client *TDEngineClient `json:"TDEngineClientConfig,omitempty"`
}

// TDEngineClient says which database of which server.
type TDEngineClient struct {
	Addr   string `json:"addr,omitempty"`
	DBName string `json:"dbName,omitempty"`
}

// PushMySQL names a MySQL server.
type PushMySQL struct {
	Client *MySQLClient `json:"mysqlClientConfig,omitempty"`
}

// MySQLClient says which database of which server.
type MySQLClient struct {
	Addr     string `json:"addr,omitempty"`
	Database string `json:"database,omitempty"`
	UserName string `json:"userName,omitempty"`
}
